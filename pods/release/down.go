package release

import "bareboat/pods"

// DownPlan removes all that releases of the project made: pods, networks, and
// the volumes with their data only if asked. Backends go before what has no
// upstream, so that the edge still carries their goodbyes.
func DownPlan(project string, a Actual, volumes bool) Plan {
	plan := Plan{Project: project, Serving: a.serving(project)}
	var backends, others []Step
	for _, p := range a.of(project) {
		step := Step{Action: Remove, Service: p.service, Name: p.Name}
		if p.upstream != "" {
			backends = append(backends, step)
		} else {
			others = append(others, step)
		}
	}
	plan.Steps = append(backends, others...)
	for _, p := range a.Pods {
		if p.Labels[pods.LabelProject] == project && p.Labels[pods.LabelRelease] == "" { // a one-off that was left
			plan.Steps = append(plan.Steps, Step{Action: Remove, Service: p.Labels[pods.LabelService], Name: p.Name})
		}
	}
	for _, n := range a.Networks {
		if n.Labels[pods.LabelProject] == project {
			plan.Steps = append(plan.Steps, Step{Action: RemoveNetwork, Name: n.Name})
		}
	}
	for _, v := range a.Volumes {
		if volumes && v.Labels[pods.LabelProject] == project {
			plan.Steps = append(plan.Steps, Step{Action: RemoveVolume, Name: v.Name})
		}
	}
	for _, s := range a.Secrets {
		if s.Labels[pods.LabelProject] == project {
			plan.Steps = append(plan.Steps, Step{Action: RemoveSecret, Name: s.Name})
		}
	}
	if a.Told != nil {
		plan.Steps = append(plan.Steps, Step{Action: Forget, Name: "what the edge was told"})
	}
	return plan
}
