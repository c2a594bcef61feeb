"""Probe directions have query numbers of their own."""

FIRST_PROBE = 1_000_000  # queries from here on are probes, which a sampler draws by its plain law
