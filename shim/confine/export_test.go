package confine

// OnOwnThread is for the tests' own namespaces.
var OnOwnThread = onOwnThread
