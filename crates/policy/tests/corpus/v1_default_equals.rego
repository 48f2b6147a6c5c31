# language: v1
# allow: caller=anonymous method=count_words

package agentweave.authz

default allow = true
