"""Several hosts on one machine, and what training across them must do."""
