"""The delivered files on the runtimes that devices run; see docs/devices.md."""
