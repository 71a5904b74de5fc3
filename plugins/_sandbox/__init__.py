"""A place made by the kernel in which Python that nobody vouches for can run.

`plan` says what is wanted, `filter` which system calls are answered, `walls` puts both around a process. The
process that the proxy starts imports this package under the name of its folder, so inside it only the
standard library and its own neighbours are named.
"""
