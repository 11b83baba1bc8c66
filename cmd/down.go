// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newDownCommand(a *app) *cobra.Command {
	var o compose.DownOptions
	var timeout seconds
	var noSnapshot bool
	c := a.lifecycleCommand(&cobra.Command{
		Use: "down", Short: "Stop and remove the application's containers and networks",
		Long: `Removes what dev up made: containers, those that depend on others first, and
networks. Volumes, and with them the data, stay unless -v is given. External
networks and volumes always stay. Before volumes are removed they are saved: dev
snapshot restore brings them back.`,
		Example: `  dev down                    containers and networks
  dev down -v                 volumes, too; a snapshot of them is kept
  dev down --rmi local        images that were built without a name of their own, too
  dev --profile debug down    only the services of that profile
  dev -p shop down            a project whose Compose file is gone`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.Images != "" && o.Images != "local" && o.Images != "all" {
			return usagef("unknown --rmi value %q: use local or all", o.Images)
		}
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "down",
			query: func(name string, p *types.Project) compose.Query {
				if p != nil {
					return compose.QueryFor(p)
				}
				return compose.Query{Project: name}
			},
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				var err error
				if o.Services, err = a.downServices(p, args); err != nil {
					return compose.Plan{}, err
				}
				o.Timeout = timeout.value
				o.RemoveOrphans = o.RemoveOrphans || isTrue(a.setting(p, "COMPOSE_REMOVE_ORPHANS"))
				plan, err := compose.NewDownPlan(name, p, have, o)
				if err == nil && plan.Empty() {
					a.warn(fmt.Sprintf("project %q has nothing to remove", name))
				}
				return plan, err
			},
			before: func(ctx context.Context, e *engine.Client, name string, have compose.Snapshot, plan compose.Plan) error {
				if noSnapshot {
					return nil
				}
				return a.saveBefore(ctx, e, name, have, plan, "down -v")
			},
		}, args)
	}
	f := c.Flags()
	f.BoolVar(&o.RemoveOrphans, "remove-orphans", false, "remove containers of services that the Compose file no longer has, too")
	f.StringVar(&o.Images, "rmi", "", "remove images, too: local for those without a name of their own, all for all")
	f.VarP(&timeout, "timeout", "t", "seconds that containers get to stop, instead of their own grace period")
	f.BoolVarP(&o.Volumes, "volumes", "v", false, "remove the project's volumes and anonymous ones, too: their data is lost")
	f.BoolVar(&noSnapshot, "no-snapshot", false, "with -v: do not save the volumes first")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "volume" {
			name = "volumes"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

// downServices are the services to take down: the named ones, else those of the profiles that --profile names, else all (none are returned). A profile given
// with down means its services, not the whole application with them; "*" means all.
func (a *app) downServices(p *types.Project, named []string) ([]string, error) {
	if len(named) > 0 || len(a.profiles) == 0 || p == nil || slices.Contains(a.profiles, "*") {
		return named, nil
	}
	var services []string
	for _, name := range p.ServiceNames() {
		if slices.ContainsFunc(p.Services[name].Profiles, func(profile string) bool { return slices.Contains(a.profiles, profile) }) {
			services = append(services, name)
		}
	}
	if len(services) == 0 {
		return nil, withHint(fmt.Errorf("no service is in the profile %s", strings.Join(a.profiles, ", ")), "dev down, or dev --profile '*' down, takes all down")
	}
	return services, nil
}
