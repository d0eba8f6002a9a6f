"""The conformance kit for clients of Sealpost: see README.md."""
