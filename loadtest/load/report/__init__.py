"""Reports of a run: console, JUnit XML, Markdown, JSON, and a page with plots."""
