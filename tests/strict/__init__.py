"""Stand-ins for the upstreams, as severe as the real ones or more so: `answer(asked)` gives the reply."""
