"""The same audits of students that classify, tag or find answers: they have labels to be asked for, and no words."""
