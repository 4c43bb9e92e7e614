"""The site: its pages, and the code that makes what no page can say by itself."""
