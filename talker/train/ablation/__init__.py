"""Experiments: every claim of the papers is a switch, and each experiment turns one of them.

``catalogue`` says what is asked, ``variants`` what is trained for it, ``run`` trains and measures one variant from
one seed in ``worker``'s own process, ``ablate`` does it all and writes ``table`` and ``plots``.
"""
