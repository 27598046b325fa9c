"""The command line: ``main`` picks a verb, ``verb`` parses and runs it, ``verbs/`` has one short module a verb."""
