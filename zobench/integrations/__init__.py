"""zobench inside other libraries' training loops; nothing of zobench imports this package."""
