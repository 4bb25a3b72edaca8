package pods

import (
	"cmp"
	"slices"
)

// labelFilter is Podman's filter for what carries all the labels.
func labelFilter(labels map[string]string) map[string][]string {
	if len(labels) == 0 {
		return nil
	}
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return map[string][]string{"label": list}
}

// carries repeats the service's filter: what it takes several labels for (all
// of them, or any) differs by version and by what is listed.
func carries(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func sortBy[T any, K cmp.Ordered](list []T, key func(T) K) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
