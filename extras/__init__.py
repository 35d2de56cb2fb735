"""What only some examples need, beside common: the management API, a database, optional packages."""
