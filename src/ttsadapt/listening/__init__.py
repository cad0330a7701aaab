"""Listening tests: one page of a study's clips that people answer, blinded, and what their answers say.

A kind of test is a file here (a `Task`) and a yaml in conf/page/.
"""
