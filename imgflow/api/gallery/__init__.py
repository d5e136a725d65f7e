"""The gallery: pages for people, from the same catalogue and by the same access as the API."""
