"""The delivered files on the runtimes that devices run; see device_tests/README.md."""
