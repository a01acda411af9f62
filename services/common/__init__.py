"""What two or more services use: the chassis every service is built on."""
