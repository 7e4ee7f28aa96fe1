"""An HTTP server with the interface of OpenAI: requests join the running batch at its next step."""
