# fails: 0
# says: declares package

package somewhere.authz

allow := true
