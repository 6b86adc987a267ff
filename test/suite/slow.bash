# shellcheck shell=bash
#
# What the test files have in common that put a call of their own in the place of one of the C
# library's.

# Makes $TMPDIR/slow.so of what standard input adds to this: a call that takes a while. A tracer
# would have a say in what the signals do.
make_slow() {
	need cc env
	cat - >"$TMPDIR/call.c"
	cc -shared -fPIC -I "$TMPDIR" -o "$TMPDIR/slow.so" -x c - <<-'END' || skip 'cc makes no libraries here'
		#define _GNU_SOURCE
		#include <errno.h>
		#include <fcntl.h>
		#include <poll.h>
		#include <stdarg.h>
		#include <stdlib.h>
		#include <sys/syscall.h>
		#include <time.h>
		#include <unistd.h>
		#include "call.c"

		__attribute__((constructor)) static void
		keep_to_ourselves(void)
		{
			const char *sign = getenv("SLOW_SIGN");

			unsetenv("LD_PRELOAD");
			if (sign != NULL)
				close(open(sign, O_WRONLY | O_CREAT, 0600));
		}
	END
	# A static program, or one of another C library, takes none.
	SLOW_SIGN=$TMPDIR/taken LD_PRELOAD=$TMPDIR/slow.so "$TUNNEL" -V >/dev/null 2>&1 || :
	[ -e "$TMPDIR/taken" ] || skip 'it takes no library'
}
