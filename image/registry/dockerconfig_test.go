package registry

import "testing"

// TestDockerConfigPaths: of several entries for one host, the same one is
// chosen every time: the one for the host itself.
func TestDockerConfigPaths(t *testing.T) {
	const text = `{"auths":{"r.example/a":{"username":"a","password":"x"},
		"r.example":{"username":"host","password":"x"},"r.example/b":{"username":"b","password":"x"}}}`
	for range 100 {
		m, err := parseDockerConfig([]byte(text), "config.json")
		if err != nil || m["r.example"].user != "host" {
			t.Fatalf("%+v, %v; want the entry of the host itself", m, err)
		}
	}
}
