"""How long events stay: by policy, layer by layer, with holds that win and a certificate of each
run.
"""
