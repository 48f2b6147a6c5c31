# fails: 4
# says: package

allow := true
