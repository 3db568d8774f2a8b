/* many_headers.c - as many headers as a submission may have, each as long as a file may be. */
#include "lab5.h"

#include "many00.h"

static void cheat(void)
{
}
