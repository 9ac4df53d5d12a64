"""Any backbone into descriptors."""
