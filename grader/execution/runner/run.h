/* Execute one job and tell the host what came of it. */
#pragma once

#include "job.h"
#include "supervisor.h"

/* Records go to and come from `channel`. False when the host is gone: nothing is left to be done
 * then. */
bool run_execute(int channel, struct job *job, const struct supervisor_options *options);
