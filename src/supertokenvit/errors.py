"""The one base of every error that a user can cause and mend; it is that of the runtime package, too."""

from supertokenvit_runtime.errors import UsageError as UsageError
from supertokenvit_runtime.errors import UserError as UserError
