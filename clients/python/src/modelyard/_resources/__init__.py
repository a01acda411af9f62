"""The methods of the clients, one module per kind of resource.

They return the resources as the protos define them: typed, documented, and in
the same words in every language. There is no second vocabulary. Lists are
iterators that read page by page. Every write carries a request id, made once
for each logical call, so that a retry never does it twice.
"""
