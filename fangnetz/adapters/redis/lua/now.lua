-- Return the store's clock in us. KEYS: any key of the cluster.
return text(now_us())
