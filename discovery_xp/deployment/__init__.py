"""A plan and its hosts to a cloud: playbooks, what they are told, what they answer, status."""
