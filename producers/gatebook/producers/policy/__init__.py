"""What is captured of which access: a policy file, matched, held to, and watched. See README.md."""
