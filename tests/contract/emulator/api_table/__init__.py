"""The table of the API's rules that `test_api_table.py` walks: one row, one rule, one comparison."""
