"""The door for clients of OpenAI's protocol: the same desks, asked in other words."""
