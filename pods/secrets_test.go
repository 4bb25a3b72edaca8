package pods_test

import (
	"context"
	"testing"
)

// A secret is made once, told apart by its name and labels, and never shown.
func TestSecrets(t *testing.T) {
	p := use(t)
	name := "bareboat-" + unique()
	labels := map[string]string{testLabel: name}
	t.Cleanup(func() {
		if err := p.RemoveSecret(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := p.EnsureSecret(t.Context(), name, []byte("hush"), labels); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := p.Secrets(t.Context(), labels); err != nil || len(list) != 1 || list[0].Name != name || list[0].Labels[testLabel] != name {
		t.Errorf("Secrets = %+v, %v", list, err)
	}
	if list, err := p.Secrets(t.Context(), map[string]string{testLabel: "another"}); err != nil || len(list) != 0 {
		t.Errorf("Secrets of somebody else = %+v, %v", list, err)
	}
	for range 2 {
		if err := p.RemoveSecret(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := p.Secrets(t.Context(), labels); err != nil || len(list) != 0 {
		t.Errorf("after it was removed: %+v, %v", list, err)
	}
}
