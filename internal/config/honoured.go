package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/tree"
)

// honoured lists the keys of the Compose specification that have an effect, so
// that any other, today's or a later one's, ends as a warning. "*" is any key,
// "[]" an item of a list.
func honoured() []tree.Path {
	paths := []tree.Path{"name", "version", "include", "services.*"}
	for _, key := range strings.Fields(`
		image build command command.[] entrypoint entrypoint.[]
		environment.* environment.[] env_file env_file.[] env_file.[].*
		user working_dir hostname init labels.* labels.[] label_file label_file.[]
		volumes.[].type volumes.[].source volumes.[].target volumes.[].read_only
		volumes.[].bind.create_host_path volumes.[].volume volumes.[].tmpfs.size volumes.[].tmpfs.mode
		tmpfs tmpfs.[] read_only
		network_mode networks.* networks.*.aliases.[] networks.[]
		expose.[] ports.[].target ports.[].published ports.[].host_ip ports.[].protocol ports.[].mode
		cap_add.[] cap_drop.[] security_opt.[] privileged
		mem_limit cpus pids_limit
		deploy.resources.limits.memory deploy.resources.limits.cpus deploy.resources.limits.pids
		deploy.replicas scale deploy.update_config.order deploy.update_config.parallelism
		deploy.update_config.delay deploy.update_config.monitor deploy.update_config.failure_action
		deploy.rollback_config.parallelism deploy.rollback_config.delay deploy.rollback_config.monitor
		deploy.rollback_config.failure_action
		secrets.[] secrets.[].source secrets.[].target secrets.[].uid secrets.[].gid secrets.[].mode
		configs.[] configs.[].source configs.[].target configs.[].uid configs.[].gid configs.[].mode
		healthcheck.test healthcheck.test.[] healthcheck.interval healthcheck.timeout
		healthcheck.retries healthcheck.start_period healthcheck.disable
		stop_grace_period stop_signal restart profiles.[]
		depends_on.* depends_on.*.condition depends_on.*.required depends_on.[] extends extends.*
		stdin_open tty`) {
		paths = append(paths, tree.Path("services.*."+key))
	}
	for _, key := range strings.Fields(`
		secrets.*.name secrets.*.file secrets.*.environment secrets.*.content secrets.*.external
		configs.*.name configs.*.file configs.*.environment configs.*.content configs.*.external
		volumes.* volumes.*.name volumes.*.external volumes.*.labels.* volumes.*.labels.[] volumes.*.driver
		networks.* networks.*.name networks.*.external networks.*.labels.* networks.*.labels.[]
		networks.*.driver networks.*.internal`) {
		paths = append(paths, tree.Path(key))
	}
	return paths
}

// partly lists the honoured keys of which only some values have an effect.
func partly() []loader.UnsupportedAttributePattern {
	return []loader.UnsupportedAttributePattern{
		{Path: "services.*.build", Detect: func(any) bool { return false }}, // for other tools, where there is a recipe
		{Path: "services.*.privileged", Detect: isNot("false")},
		{Path: "services.*.stdin_open", Detect: isNot("false")},
		{Path: "services.*.tty", Detect: isNot("false")},
		{Path: "services.*.depends_on.*.condition", Detect: isNot("service_started", "service_healthy", "service_completed_successfully")},
		{Path: "services.*.security_opt.[]", Detect: isNot(append(slices.Clone(noNewPrivileges), mayGainPrivileges...)...)},
		{Path: "services.*.volumes.[].type", Detect: isNot("volume", "bind", "tmpfs")},
		{Path: "services.*.volumes.[].volume", Detect: isNot("map[]")}, // the library adds an empty one
		{Path: "volumes.*.driver", Detect: isNot("local")},
		{Path: "networks.*.driver", Detect: isNot("bridge")},
	}
}

func isNot(values ...string) func(any) bool {
	return func(v any) bool { return !slices.Contains(values, fmt.Sprint(v)) }
}

// unhonoured has the loader report what this package ignores.
func (r *reader) unhonoured() func(*loader.Options) {
	return func(o *loader.Options) {
		o.UnsupportedAttributesCheck = &loader.UnsupportedAttributesCheck{
			Patterns:  partly(),
			Supported: honoured(),
			Report: func(found []loader.UnsupportedAttribute) {
				r.ignored = found
			},
		}
	}
}

// keyParts splits a path; the loader keeps a dot inside a key under another
// character.
func keyParts(p tree.Path) []string {
	parts := p.Parts()
	dotted := strings.TrimPrefix(string(tree.Path("").Next("x").Next(".")), "x.")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], dotted, ".")
	}
	return parts
}

// warnIgnored turns what is ignored into warnings, but for services that no
// active profile enables.
func (r *reader) warnIgnored(enabled func(service string) bool) {
	for _, a := range r.ignored {
		parts, where := keyParts(a.Path), ""
		if parts[0] == "services" && len(parts) > 2 {
			if !enabled(parts[1]) {
				continue
			}
			where, parts = "service "+parts[1]+": ", parts[2:]
		}
		key := where + strings.ReplaceAll(strings.Join(parts, "."), ".[]", "")
		if isPartly(a) {
			r.warn("%s: %v is not honoured", key, a.Value)
		} else {
			r.warn("%s is not honoured", key)
		}
	}
}

// isPartly tells that the key is honoured and only this value is not.
func isPartly(a loader.UnsupportedAttribute) bool {
	switch a.Value.(type) {
	case map[string]any, []any, nil:
		return false
	}
	return slices.ContainsFunc(partly(), func(p loader.UnsupportedAttributePattern) bool { return a.Path.Matches(p.Path) })
}
