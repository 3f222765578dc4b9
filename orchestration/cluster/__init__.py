"""Everything that lives in processes of Ray; nothing above or below imports Ray."""
