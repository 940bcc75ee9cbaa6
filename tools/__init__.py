"""What maintainers run by hand or in CI: pages made from the code, the recording of the README."""
