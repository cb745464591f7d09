"""The nwfilter language: filters from XML to rules whose variables are bound, and back."""
