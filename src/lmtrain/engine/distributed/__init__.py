"""What the processes of one run do together: meet, exchange, wait for each other, and end."""
