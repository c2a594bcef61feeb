"""A registry of results: small folders of scored runs, which `zobench verify` replays."""
