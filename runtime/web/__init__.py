"""What a page that is served from here needs, whatever serves it: who may see it, what a browser may do with it."""
