package wasi

// Rights say what a descriptor may be used for. The bits are those of preview
// 1; later previews, which have no rights, use the masks below.
type Rights uint64

// The rights of preview 1.
const (
	RightFDDatasync Rights = 1 << iota
	RightFDRead
	RightFDSeek
	RightFDFdstatSetFlags
	RightFDSync
	RightFDTell
	RightFDWrite
	RightFDAdvise
	RightFDAllocate
	RightPathCreateDirectory
	RightPathCreateFile
	RightPathLinkSource
	RightPathLinkTarget
	RightPathOpen
	RightFDReaddir
	RightPathReadlink
	RightPathRenameSource
	RightPathRenameTarget
	RightPathFilestatGet
	RightPathFilestatSetSize
	RightPathFilestatSetTimes
	RightFDFilestatGet
	RightFDFilestatSetSize
	RightFDFilestatSetTimes
	RightPathSymlink
	RightPathRemoveDirectory
	RightPathUnlinkFile
	RightPollFDReadwrite
	RightSockShutdown
	RightSockAccept
)

// What each kind of descriptor can be used for at most.
const (
	rightsFile = RightFDDatasync | RightFDRead | RightFDSeek | RightFDFdstatSetFlags | RightFDSync |
		RightFDTell | RightFDWrite | RightFDAdvise | RightFDAllocate | RightFDFilestatGet |
		RightFDFilestatSetSize | RightFDFilestatSetTimes | RightPollFDReadwrite
	rightsFileWrite = RightFDWrite | RightFDAllocate | RightFDFilestatSetSize
	rightsFolder    = RightFDFdstatSetFlags | RightFDSync | RightFDDatasync | RightPathCreateDirectory | RightPathCreateFile |
		RightPathLinkSource | RightPathLinkTarget | RightPathOpen | RightFDReaddir | RightPathReadlink |
		RightPathRenameSource | RightPathRenameTarget | RightPathFilestatGet | RightPathFilestatSetSize |
		RightPathFilestatSetTimes | RightFDFilestatGet | RightFDFilestatSetTimes | RightPathSymlink |
		RightPathRemoveDirectory | RightPathUnlinkFile
	rightsFolderInherit = rightsFolder | rightsFile
	rightsPipe          = RightFDRead | RightFDWrite | RightFDFdstatSetFlags | RightFDFilestatGet | RightPollFDReadwrite
	rightsStdin         = RightFDRead | RightFDFdstatSetFlags | RightFDFilestatGet | RightPollFDReadwrite
	rightsOutput        = RightFDWrite | RightFDFdstatSetFlags | RightFDFilestatGet | RightFDSync | RightFDDatasync | RightPollFDReadwrite
	rightsListener      = RightFDFdstatSetFlags | RightFDFilestatGet | RightPollFDReadwrite | RightSockAccept | RightSockShutdown
	rightsListenInherit = rightsStream
	rightsStream        = RightFDRead | RightFDWrite | RightFDFdstatSetFlags | RightFDFilestatGet | RightPollFDReadwrite | RightSockShutdown
)

// FDFlags are a descriptor's flags, in the bits of preview 1.
type FDFlags uint16

// The flags of a descriptor.
const (
	FlagAppend FDFlags = 1 << iota
	FlagDSync
	FlagNonblock
	FlagRSync
	FlagSync

	flagsAll = FlagSync<<1 - 1
)

// Filetype is the type of a file, in the numbers of preview 1.
type Filetype uint8

// The types of files. What preview 1 has no number for is TypeUnknown.
const (
	TypeUnknown Filetype = iota
	TypeBlockDevice
	TypeCharacterDevice
	TypeDirectory
	TypeRegularFile
	TypeSocketDgram
	TypeSocketStream
	TypeSymbolicLink
)
