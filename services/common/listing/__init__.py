"""What every List understands: filters, orders, pages."""
