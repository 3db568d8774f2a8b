/* Execute one job and report its result to the host. */
#pragma once

#include "job.h"
#include "supervisor.h"

/* Exchanges records over `channel`. False when the host is gone. */
bool run_execute(int channel, struct job *job, const struct supervisor_options *options);
