"""Where dashboards are kept: the contract in ``base``, and one module or package for each store that keeps it."""
