// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package wire

// Linux's numbers of errors that hosts of other systems name, too.
const (
	EPERM        = 1
	ENOENT       = 2
	EIO          = 5
	EACCES       = 13
	EEXIST       = 17
	EXDEV        = 18
	ENOTDIR      = 20
	EISDIR       = 21
	EINVAL       = 22
	ETXTBSY      = 26
	EFBIG        = 27
	ENOSPC       = 28
	EROFS        = 30
	EMLINK       = 31
	ERANGE       = 34
	ENAMETOOLONG = 36
	ENOSYS       = 38
	ENOTEMPTY    = 39
	ELOOP        = 40
	ENODATA      = 61
	EOPNOTSUPP   = 95
	ESTALE       = 116
	EDQUOT       = 122
)

// Linux's type bits of a mode.
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeFolder  = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)
