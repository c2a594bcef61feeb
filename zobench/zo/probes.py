"""How probe directions are told from a step's own: by their query number."""

FIRST_PROBE = 1_000_000  # queries from here on are probes, which a sampler draws by its plain law
