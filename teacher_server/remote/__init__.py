"""Teachers that somebody else serves, over the protocol of OpenAI."""
