"""Starts wstest without pyOpenSSL. Python 2, as the suite itself."""

import sys
import types

# The suite imports Twisted's TLS and does not use it for ws:// addresses. The real module needs pyOpenSSL, which would
# have to be compiled.
ssl = types.ModuleType("twisted.internet.ssl")
ssl.ClientContextFactory = ssl.DefaultOpenSSLContextFactory = object
sys.modules["twisted.internet.ssl"] = ssl

import twisted.internet  # noqa: E402

twisted.internet.ssl = ssl

from autobahntestsuite import wstest  # noqa: E402

sys.argv[0] = "wstest"
wstest.run()
