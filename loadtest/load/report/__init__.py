"""What people and machines are told of a run: console, JUnit XML, Markdown, JSON, and a page with plots."""
